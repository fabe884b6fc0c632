//! Is what `-j` prints the contract that scripts rely on?
