"""nnU-Net outside of training: its folders, commands, plans, images and splits.

A new version of nnU-Net comes through this room and ``training``; the losses use two of its functions (Dice, gather).
"""
