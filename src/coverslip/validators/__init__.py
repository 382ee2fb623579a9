"""What is wrong with a series, said as findings with stable rule ids."""
