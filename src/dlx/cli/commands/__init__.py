"""The commands of `dlx`, one file each: their options, and the steps from them to what is printed."""
