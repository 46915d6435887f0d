"""The time loop of recurrent layers."""
