//! The generated code of the echo service.

include!(concat!(env!("OUT_DIR"), "/echo.rs"));
