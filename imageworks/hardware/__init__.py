"""What this machine has; asked by `imageworks up` and `show`, never by the compiler."""
