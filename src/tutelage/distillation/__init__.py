"""The distiller, its loss terms and the cache of teacher logits."""
