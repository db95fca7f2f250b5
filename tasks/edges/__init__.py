"""The only files of the tasks that import Detectron2, mmsegmentation or mmengine."""
