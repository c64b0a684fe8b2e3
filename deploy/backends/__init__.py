"""The engines that can run a bundle. A library is imported only when its backend is asked for."""
