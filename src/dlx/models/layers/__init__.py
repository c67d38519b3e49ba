"""What networks are made of: convolutions, normalisation, upsampling, dropout, and blocks of them."""
