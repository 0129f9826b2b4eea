//! What Tram's tests share: databases, and a whole controller with agents and hosts.

pub mod bench;
pub mod cable;
pub mod db;
pub mod device;
pub mod endless;
pub mod front;
pub mod gate;
pub mod gateways;
pub mod guest;
pub mod http;
pub mod inspector;
pub mod kiosk;
pub mod links;
pub mod node;
pub mod office;
pub mod province;
pub mod screen;
pub mod support;
pub mod thin;
pub mod tunnels;
pub mod world;
