"""What each event is: frozen records with units in their names, and the one wire codec."""
