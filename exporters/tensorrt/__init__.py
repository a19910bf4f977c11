"""TensorRT: kits for Jetsons, whose engines are built on the board."""
