"""The teacher: PSPNet (Zhao et al., CVPR 2017, arXiv:1612.01105) on dilated timm backbones."""
