"""What is measured beside the clipping, one thing a file: tensors in, device numbers out."""
