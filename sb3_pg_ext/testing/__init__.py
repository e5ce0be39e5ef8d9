"""What plug-in authors run on their own code."""
