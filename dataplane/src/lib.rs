//! The Ringtail data plane: agent, gateway and the wire they speak over.

pub mod transport; // the wire edge: frames, compression, admission, server, client
