//! Writing BSATN primitives.

use crate::{ConnectionId, I256, Identity, ScheduleAt, TimeDuration, Timestamp, U256};

macro_rules! declare {
    ($($method:ident $ty:ident)*) => {$(
        #[doc = concat!("Appends a little-endian `", stringify!($ty), "`.")]
        fn $method(&mut self, value: $ty);
    )*};
}

macro_rules! implement {
    ($($method:ident $ty:ident)*) => {$(
        #[inline]
        fn $method(&mut self, value: $ty) {
            self.extend_from_slice(&value.to_le_bytes());
        }
    )*};
}

/// Appends BSATN primitives to a buffer.
pub trait BsatnWrite {
    declare! {
        put_u8 u8 put_u16 u16 put_u32 u32 put_u64 u64 put_u128 u128 put_u256 U256
        put_i8 i8 put_i16 i16 put_i32 i32 put_i64 i64 put_i128 i128 put_i256 I256
        put_f32 f32 put_f64 f64
    }

    /// Appends a boolean.
    fn put_bool(&mut self, value: bool);

    /// Appends an array's count, to be followed by the elements.
    ///
    /// # Panics
    /// If there are 2^32 or more: no such array can be encoded.
    fn put_len(&mut self, count: usize);

    /// Appends a byte array with its length.
    ///
    /// # Panics
    /// If it has 2^32 bytes or more.
    fn put_bytes(&mut self, bytes: &[u8]);

    /// Appends a string.
    ///
    /// # Panics
    /// If it has 2^32 bytes or more.
    fn put_str(&mut self, text: &str) {
        self.put_bytes(text.as_bytes());
    }

    /// Appends an identity.
    fn put_identity(&mut self, identity: &Identity);

    /// Appends a connection id.
    fn put_connection_id(&mut self, id: ConnectionId) {
        self.put_u128(id.get());
    }

    /// Appends a timestamp.
    fn put_timestamp(&mut self, time: Timestamp) {
        self.put_i64(time.micros());
    }

    /// Appends a span of time.
    fn put_time_duration(&mut self, span: TimeDuration) {
        self.put_i64(span.micros());
    }

    /// Appends when a scheduled row is due.
    fn put_schedule_at(&mut self, at: ScheduleAt) {
        match at {
            ScheduleAt::Interval(span) => {
                self.put_u8(0);
                self.put_time_duration(span);
            }
            ScheduleAt::Time(time) => {
                self.put_u8(1);
                self.put_timestamp(time);
            }
        }
    }
}

impl BsatnWrite for Vec<u8> {
    implement! {
        put_u16 u16 put_u32 u32 put_u64 u64 put_u128 u128 put_u256 U256
        put_i8 i8 put_i16 i16 put_i32 i32 put_i64 i64 put_i128 i128 put_i256 I256
        put_f32 f32 put_f64 f64
    }

    #[inline]
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }

    #[inline]
    fn put_bool(&mut self, value: bool) {
        self.push(u8::from(value));
    }

    #[inline]
    fn put_len(&mut self, count: usize) {
        let count = u32::try_from(count).expect("arrays have fewer than 2^32 elements");
        self.put_u32(count);
    }

    #[inline]
    fn put_bytes(&mut self, bytes: &[u8]) {
        self.put_len(bytes.len());
        self.extend_from_slice(bytes);
    }

    #[inline]
    fn put_identity(&mut self, identity: &Identity) {
        self.extend_from_slice(identity.as_le_bytes());
    }
}
