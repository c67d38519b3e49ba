"""Intensities of images: their statistics, normalisers, the windows of CT, and what float16 loses of them."""
