"""The engines that can run a bundle. A backend's library is imported only when that backend is requested."""
