//! Ends sessions nobody will come back to.
