"""Below the functions and layers: whose arrays these are, which kernels serve them, and how."""
