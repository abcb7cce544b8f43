"""Model folders and the hub: folders found, loaded and described, model cards, uploads."""
