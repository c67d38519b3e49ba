"""placeholder"""
from dlx.arguments import bind_arguments as bind_arguments
