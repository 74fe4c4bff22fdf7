//! What `ctx` shows of the running call, randomness, time, and the transactions of procedures.
//!
//! Accessors read the call when they are asked, so a call that asks nothing pays nothing. The objects of the sender and of the
//! time are kept for the next call that has the same; they cannot be changed by the module.

use tine_types::{Identity, Timestamp, Uuid};

use super::decode::big_from_text;
use super::errors::{self, ErrorClass};
use super::raw::{Call, Cx, JsResult, Kind, Value};
use super::state::CallState;
use crate::call::{CallContext, CallHost, SyscallError};

/// Most random bits that one native call makes.
const RANDOM_BITS_MAX: usize = 4096;

/// Adds the natives of this file to the object that the SDK gets.
pub(super) fn install<'js>(cx: Cx<'js>, native: &Value<'js>) -> JsResult<()> {
    macro_rules! define {
        ($($name:literal $length:literal $function:expr,)*) => {
            $(native.define_named($name, cx.function($name, $length, 0, $function)?)?;)*
        };
    }
    define! {
        "sender" 0 sender, "connectionId" 0 connection_id, "databaseIdentity" 0 database_identity,
        "timestamp" 0 timestamp, "transactionTimestamp" 0 transaction_timestamp, "now" 0 now,
        "isInternal" 0 is_internal, "jwtPayload" 0 jwt_payload,
        "random" 0 random, "randomUint32" 0 random_uint32, "randomInteger" 2 random_integer,
        "randomBits" 1 random_bits, "randomFill" 1 random_fill,
        "newUuidV4" 0 new_uuid_v4, "newUuidV7" 0 new_uuid_v7,
        "beginTransaction" 0 begin_transaction, "commitTransaction" 0 commit_transaction, "abortTransaction" 0 abort_transaction,
        "httpRequest" 5 super::http::request,
    }
    Ok(())
}

/// Passes the running call's context on; throws if no call runs.
fn with_call<'js, T>(cx: Cx<'js>, read: impl FnOnce(&CallContext) -> T) -> JsResult<T> {
    let found = cx.state().call.context.with(|context| read(context));
    found.ok_or_else(|| {
        errors::throw(cx, ErrorClass::Plain, "no call is running: this cannot be used while the module loads")
    })
}

impl CallState {
    /// The next 64 random bits.
    pub(super) fn random_u64(&self) -> u64 {
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A random number below `bound`, each equally likely.
    fn random_below(&self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing is below zero");
        // Of the 2^64 values the last incomplete run of `bound` is skipped; fewer than half, so this ends soon.
        let skipped = (u64::MAX % bound + 1) % bound;
        loop {
            let value = self.random_u64();
            if value <= u64::MAX - skipped {
                return value % bound;
            }
        }
    }
}

fn identity_object(cx: Cx<'_>, identity: Identity) -> JsResult<Value<'_>> {
    let object = cx.block_object(cx.state().boot().classes.identity, identity.to_le_bytes())?;
    // Kept between calls, so nothing may be hung on it.
    object.prevent_extensions()?;
    Ok(object)
}

fn timestamp_object(cx: Cx<'_>, micros: i64) -> JsResult<Value<'_>> {
    let (kept, slot) = &cx.state().call.timestamp;
    if kept.get() == Some(micros) {
        return Ok(slot.get(cx));
    }
    let object = cx.word_object(cx.state().boot().classes.timestamp, micros as u64)?;
    object.prevent_extensions()?;
    kept.set(Some(micros));
    slot.set(object.clone());
    Ok(object)
}

fn sender<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let identity = with_call(call.cx, |context| context.sender)?;
    let (kept, slot) = &call.cx.state().call.sender;
    if kept.get() == Some(identity) {
        return Ok(slot.get(call.cx));
    }
    let object = identity_object(call.cx, identity)?;
    kept.set(Some(identity));
    slot.set(object.clone());
    Ok(object)
}

fn connection_id<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    match with_call(call.cx, |context| context.connection_id)? {
        Some(id) => call.cx.block_object(call.cx.state().boot().classes.connection_id, id.to_le_bytes()),
        None => Ok(call.cx.null()),
    }
}

fn database_identity<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let identity = with_call(call.cx, |context| context.database_identity)?;
    identity_object(call.cx, identity)
}

fn timestamp<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let timestamp = with_call(call.cx, |context| context.timestamp)?;
    timestamp_object(call.cx, timestamp.micros())
}

fn transaction_timestamp<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    match call.cx.state().call.transaction_micros.get() {
        Some(micros) => timestamp_object(call.cx, micros),
        None => timestamp(call),
    }
}

/// Milliseconds since the epoch, for `Date`. While the module loads it is the epoch.
pub(super) fn now<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let state = &call.cx.state().call;
    let micros = state.transaction_micros.get().or_else(|| state.context.with(|context| context.timestamp.micros()));
    Ok(call.cx.number(micros.unwrap_or(0).div_euclid(1000) as f64))
}

/// Whether the database itself is the caller, as for schedules.
fn is_internal<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let is_internal =
        with_call(call.cx, |context| context.connection_id.is_none() && context.sender == context.database_identity)?;
    Ok(call.cx.bool(is_internal))
}

fn jwt_payload<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    match with_call(call.cx, |context| context.jwt_payload.clone())? {
        Some(payload) => call.cx.string(&payload),
        None => Ok(call.cx.undefined()),
    }
}

/// From 0 up to but not 1, with 53 random bits.
fn random<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let bits = call.cx.state().call.random_u64() >> 11;
    Ok(call.cx.number(bits as f64 / (1u64 << 53) as f64))
}

fn random_uint32<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    Ok(call.cx.number(((call.cx.state().call.random_u64() >> 32) as u32).into()))
}

/// `randomInteger(min, max)`, both included.
fn random_integer<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let (min, max) = (call.arg(0).to_number()?, call.arg(1).to_number()?);
    let is_safe = |number: f64| number.trunc() == number && number.abs() <= 9_007_199_254_740_991.0;
    if !is_safe(min) || !is_safe(max) || min > max {
        return Err(errors::throw(
            call.cx,
            ErrorClass::Range,
            "integerInRange(min, max) needs two safe integers, the smaller one first",
        ));
    }
    let (min, max) = (min as i64, max as i64);
    let size = (max - min) as u64 + 1;
    let value = min + call.cx.state().call.random_below(size) as i64;
    Ok(call.cx.number(value as f64))
}

/// `randomBits(count)`: a big integer of at most that many bits.
fn random_bits<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let count = match call.arg(0).kind() {
        Kind::Int(count) if (1..=RANDOM_BITS_MAX as i32).contains(&count) => count as usize,
        _ => return Err(errors::throw(call.cx, ErrorClass::Range, "the range is too large for random numbers")),
    };
    let mut bytes = vec![0; count.div_ceil(8)];
    fill(&call.cx.state().call, &mut bytes);
    bytes[0] &= 0xff >> (bytes.len() * 8 - count);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    big_from_text(call.cx, &format!("0x{hex}"))
}

fn fill(state: &CallState, bytes: &mut [u8]) {
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&state.random_u64().to_le_bytes()[..chunk.len()]);
    }
}

/// `randomFill(typedArray)`
fn random_fill<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let array = call.arg(0);
    if !array.fill_bytes(|bytes| fill(&call.cx.state().call, bytes)) {
        return Err(errors::throw(call.cx, ErrorClass::Type, "fill() needs a typed array"));
    }
    Ok(array.clone())
}

fn uuid_object(cx: Cx<'_>, uuid: Uuid) -> JsResult<Value<'_>> {
    cx.block_object(cx.state().boot().classes.uuid, uuid.get().to_le_bytes())
}

fn new_uuid_v4<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let mut bytes = [0; 16];
    fill(&call.cx.state().call, &mut bytes);
    uuid_object(call.cx, Uuid::from_random_bytes(bytes))
}

/// Sortable: milliseconds, a counter within the call, and 31 random bits.
fn new_uuid_v7<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let state = &call.cx.state().call;
    let micros = match state.transaction_micros.get() {
        Some(micros) => micros,
        None => with_call(call.cx, |context| context.timestamp)?.micros(),
    };
    let count = state.uuid_count.get();
    state.uuid_count.set((count + 1) & 0x7fff_ffff);
    let random = state.random_u64() as u32 & 0x7fff_ffff;
    uuid_object(call.cx, uuid_v7(Timestamp::from_micros(micros), count, random))
}

/// The bits of a version 7 UUID as the SDK lays them out: 48 of milliseconds, version, the counter's 8 highest, variant, its other 23, random.
fn uuid_v7(time: Timestamp, count: u32, random: u32) -> Uuid {
    let millis = (time.micros().max(0) / 1000) as u128 & 0xffff_ffff_ffff;
    let (high, low) = (u128::from(count >> 23), u128::from(count & 0x7f_ffff));
    Uuid::new(millis << 80 | 0x70 << 72 | high << 64 | 0x80 << 56 | low << 33 | u128::from(random))
}

/// Asks the host for something, throwing if it refuses.
pub(super) fn ask_host<'js, T>(
    cx: Cx<'js>,
    ask: impl FnOnce(&mut (dyn CallHost + 'static)) -> Result<T, SyscallError>,
) -> JsResult<T> {
    if cx.state().has_fault() {
        return Err(errors::throw_fault(cx, String::new()));
    }
    let answer = cx.state().call.host.with(ask);
    let answer =
        answer.unwrap_or_else(|| Err(SyscallError::new(SyscallError::NOT_IN_TRANSACTION, "no call is running")));
    answer.map_err(|error| errors::throw_host(cx, &error))
}

fn begin_transaction<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let time = ask_host(call.cx, |host| host.begin_transaction())?;
    call.cx.state().call.transaction_micros.set(Some(time.micros()));
    Ok(call.cx.undefined())
}

fn commit_transaction<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    call.cx.state().call.transaction_micros.set(None);
    call.cx.state().scans.clear(&call.cx.state().heap);
    ask_host(call.cx, |host| host.commit_transaction())?;
    Ok(call.cx.undefined())
}

fn abort_transaction<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    call.cx.state().call.transaction_micros.set(None);
    call.cx.state().scans.clear(&call.cx.state().heap);
    ask_host(call.cx, |host| host.abort_transaction())?;
    Ok(call.cx.undefined())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_7_uuids_have_the_layout() {
        let time = Timestamp::from_micros(1_686_000_000_000_123);
        assert_eq!(uuid_v7(time, 1, 0).to_string(), "01888d6e-5c00-7000-8000-000200000000");
        let all = uuid_v7(time, 0x7fff_ffff, 0x7fff_ffff).to_string();
        assert_eq!(all, "01888d6e-5c00-70ff-80ff-fffe7fffffff");
    }
}
