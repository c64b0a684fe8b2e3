"""The networks: dilated timm backbones and the PSPNet of Zhao et al. (CVPR 2017, arXiv:1612.01105)."""
