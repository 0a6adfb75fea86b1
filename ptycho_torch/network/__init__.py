"""The network's input, the networks, the model around them and its loss.

A network is a callable (channels, config: ModelConfig) -> nn.Module. The module maps real channels
(canvases, channels, H, W) to a complex correction (canvases, H, W) of the last input canvas, for
any H and W. Another package adds one by an entry point of the group `fly64.networks`."""
