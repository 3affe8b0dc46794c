"""What `imageworks doctor` looks at: one module per part of the machine; each yields findings and changes nothing."""
