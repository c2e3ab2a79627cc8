"""timm backbones, their initial weights, and other people's checkpoints."""
