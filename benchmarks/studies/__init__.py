"""Studies: questions about the method that are answered on real pictures, each by one script that can be stopped."""
