//! Messages from a client to the server.

use bytes::Bytes;

use crate::bsatn::{BsatnWrite, DecodeError};
use crate::protocol::ProtocolError;
use crate::protocol::slices::SliceReader;

/// How many queries one subscription may have. An application subscribes to its tables, each with a
/// handful of conditions; every query costs the server a plan.
pub const SUBSCRIBE_QUERIES_MAX: usize = 4096;

/// A request. `request_id` is the client's to choose and comes back in the reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientMessage {
    /// Registers a query set and asks for its rows.
    Subscribe {
        /// Comes back in the reply.
        request_id: u32,
        /// Names the set on this connection.
        query_set_id: u32,
        /// The queries.
        queries: Vec<Box<str>>,
    },
    /// Ends a query set.
    Unsubscribe {
        /// Comes back in the reply.
        request_id: u32,
        /// The set.
        query_set_id: u32,
        /// Whether the reply shall list the rows of the set.
        send_dropped_rows: bool,
    },
    /// Asks for the rows of a query once.
    OneOffQuery {
        /// Comes back in the reply.
        request_id: u32,
        /// The query.
        query: Box<str>,
    },
    /// Calls a reducer.
    CallReducer {
        /// Comes back in the reply.
        request_id: u32,
        /// Its name.
        reducer: Box<str>,
        /// BSATN product of its parameters.
        args: Bytes,
    },
    /// Calls a procedure.
    CallProcedure {
        /// Comes back in the reply.
        request_id: u32,
        /// Its name.
        procedure: Box<str>,
        /// BSATN product of its parameters.
        args: Bytes,
    },
}

const SUBSCRIBE: u8 = 0;
const UNSUBSCRIBE: u8 = 1;
const ONE_OFF_QUERY: u8 = 2;
const CALL_REDUCER: u8 = 3;
const CALL_PROCEDURE: u8 = 4;

impl ClientMessage {
    /// The id that comes back in the reply.
    pub fn request_id(&self) -> u32 {
        match self {
            Self::Subscribe { request_id, .. }
            | Self::Unsubscribe { request_id, .. }
            | Self::OneOffQuery { request_id, .. }
            | Self::CallReducer { request_id, .. }
            | Self::CallProcedure { request_id, .. } => *request_id,
        }
    }
}

/// Reads the message at `position` of `buffer` and moves `position` behind it. Payloads are slices
/// of the buffer. Bytes behind the message are the next message's.
///
/// # Errors
/// Bytes that are no message; `position` then stays.
pub fn decode_client_message(buffer: &Bytes, position: &mut usize) -> Result<ClientMessage, ProtocolError> {
    let mut slices = SliceReader::at(buffer, *position);
    let tag = slices.reader.u8()?;
    let message = match tag {
        SUBSCRIBE => decode_subscribe(&mut slices)?,
        UNSUBSCRIBE => ClientMessage::Unsubscribe {
            request_id: slices.reader.u32()?,
            query_set_id: slices.reader.u32()?,
            send_dropped_rows: slices.reader.tag(2)? == 1,
        },
        ONE_OFF_QUERY => {
            ClientMessage::OneOffQuery { request_id: slices.reader.u32()?, query: slices.reader.str()?.into() }
        }
        CALL_REDUCER => {
            let (request_id, reducer, args) = decode_call(&mut slices)?;
            ClientMessage::CallReducer { request_id, reducer, args }
        }
        CALL_PROCEDURE => {
            let (request_id, procedure, args) = decode_call(&mut slices)?;
            ClientMessage::CallProcedure { request_id, procedure, args }
        }
        tag => return Err(ProtocolError::UnknownMessage { position: *position, tag }),
    };
    *position = slices.reader.position();
    Ok(message)
}

fn decode_call(slices: &mut SliceReader<'_>) -> Result<(u32, Box<str>, Bytes), ProtocolError> {
    let request_id = slices.reader.u32()?;
    let position = slices.reader.position();
    match slices.reader.u8()? {
        0 => {}
        flags => return Err(ProtocolError::InvalidFlags { position, flags }),
    }
    let name = slices.reader.str()?.into();
    Ok((request_id, name, slices.bytes()?))
}

fn decode_subscribe(slices: &mut SliceReader<'_>) -> Result<ClientMessage, ProtocolError> {
    /// A string's length.
    const QUERY_SIZE_MIN: usize = 4;
    let reader = &mut slices.reader;
    let request_id = reader.u32()?;
    let query_set_id = reader.u32()?;
    let count = reader.array_len(QUERY_SIZE_MIN)?;
    if count > SUBSCRIBE_QUERIES_MAX {
        return Err(ProtocolError::TooManyQueries { count });
    }
    let queries = (0..count).map(|_| reader.str().map(Into::into)).collect::<Result<_, DecodeError>>()?;
    Ok(ClientMessage::Subscribe { request_id, query_set_id, queries })
}

/// Appends a message.
pub fn encode_client_message(message: &ClientMessage, out: &mut Vec<u8>) {
    match message {
        ClientMessage::Subscribe { request_id, query_set_id, queries } => {
            out.put_u8(SUBSCRIBE);
            out.put_u32(*request_id);
            out.put_u32(*query_set_id);
            out.put_len(queries.len());
            queries.iter().for_each(|query| out.put_str(query));
        }
        ClientMessage::Unsubscribe { request_id, query_set_id, send_dropped_rows } => {
            out.put_u8(UNSUBSCRIBE);
            out.put_u32(*request_id);
            out.put_u32(*query_set_id);
            out.put_u8(u8::from(*send_dropped_rows));
        }
        ClientMessage::OneOffQuery { request_id, query } => {
            out.put_u8(ONE_OFF_QUERY);
            out.put_u32(*request_id);
            out.put_str(query);
        }
        ClientMessage::CallReducer { request_id, reducer, args } => {
            encode_call(CALL_REDUCER, *request_id, reducer, args, out);
        }
        ClientMessage::CallProcedure { request_id, procedure, args } => {
            encode_call(CALL_PROCEDURE, *request_id, procedure, args, out);
        }
    }
}

fn encode_call(tag: u8, request_id: u32, name: &str, args: &[u8], out: &mut Vec<u8>) {
    /// Tag, request id, flags and two lengths.
    const FIXED_SIZE: usize = 14;
    out.reserve(FIXED_SIZE + name.len() + args.len());
    out.put_u8(tag);
    out.put_u32(request_id);
    out.put_u8(0);
    out.put_str(name);
    out.put_bytes(args);
}
