"""Services of Newt; each folder is deployed on its own."""
