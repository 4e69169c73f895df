"""What a picture is fit for, before a network's answer to it counts."""
