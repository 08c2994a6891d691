//! Parses, runs, prints, exits: the only file that prints or exits.

fn main() {}
