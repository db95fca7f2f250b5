"""The only files that put a backbone inside Detectron2 or mmsegmentation."""
