"""Geometry shared by every room: boxes, anchor points, NMS, letterbox.  Pure functions, no settings, no state."""
