"""The config tree, installed as `quartet.configs`. This file alone makes an editable install serve the folders."""
