"""Length of the pretraining (Figure 7)."""

LAYOUT = "fig7"
ROWS = {str(epochs): {"epochs": str(epochs)} for epochs in (100, 200, 400, 800, 1600)}
