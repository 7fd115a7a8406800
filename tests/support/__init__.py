"""What the tests share; none of it is part of the product."""
