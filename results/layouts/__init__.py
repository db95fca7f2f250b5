"""One file a layout of `mae-bench table --layout`; the listing is the registry."""
