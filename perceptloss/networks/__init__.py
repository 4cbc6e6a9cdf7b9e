"""What critics and trunks are built from: layers, image operations, and the parts of single networks."""
