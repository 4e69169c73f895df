"""Is this board fit to screen, and does it compute what the reference machine did?"""
