"""A ptychography engine: optics, Poisson noise, patches, canvas steps, a physics-informed network,
Lightning training.

Importing the package imports neither torch nor lightning; its modules do. It knows nothing of the
study in `fly64lib`."""
