"""Embeddings on disk, and the nearest of them: exact on the devices, or by FAISS."""
