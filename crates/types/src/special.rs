//! Types that are recognised by their shape.
//!
//! Identities, times and ids have no type constructor of their own. They are products of one field
//! whose name is magic, options and results are sums with magic variant names. Clients recognise
//! them the same way, so the names here are part of the wire format.

use crate::{AlgebraicType, ProductType, SumType};

const IDENTITY_FIELD: &str = "__identity__";
const CONNECTION_ID_FIELD: &str = "__connection_id__";
const TIMESTAMP_FIELD: &str = "__timestamp_micros_since_unix_epoch__";
const TIME_DURATION_FIELD: &str = "__time_duration_micros__";
const UUID_FIELD: &str = "__uuid__";

/// A product with one magic field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpecialType {
    /// 256-bit identity of a user or database.
    Identity,
    /// 128-bit id of a connection.
    ConnectionId,
    /// Microseconds since the Unix epoch.
    Timestamp,
    /// A signed number of microseconds.
    TimeDuration,
    /// 128-bit universally unique id.
    Uuid,
}

impl ProductType {
    /// Which special product this is, if any.
    pub fn special(&self) -> Option<SpecialType> {
        let [element] = &*self.elements else {
            return None;
        };
        Some(match (element.name()?, &element.ty) {
            (IDENTITY_FIELD, AlgebraicType::U256) => SpecialType::Identity,
            (CONNECTION_ID_FIELD, AlgebraicType::U128) => SpecialType::ConnectionId,
            (TIMESTAMP_FIELD, AlgebraicType::I64) => SpecialType::Timestamp,
            (TIME_DURATION_FIELD, AlgebraicType::I64) => SpecialType::TimeDuration,
            (UUID_FIELD, AlgebraicType::U128) => SpecialType::Uuid,
            _ => return None,
        })
    }
}

impl SumType {
    /// The payload type, if this is an option.
    pub fn as_option(&self) -> Option<&AlgebraicType> {
        let [some, none] = &*self.variants else {
            return None;
        };
        let is_option = some.name() == Some("some") && none.name() == Some("none") && none.ty.is_unit();
        is_option.then_some(&some.ty)
    }

    /// Whether this is an option.
    pub fn is_option(&self) -> bool {
        self.as_option().is_some()
    }
}

impl AlgebraicType {
    /// Which special product this is, if any.
    pub fn special(&self) -> Option<SpecialType> {
        self.as_product()?.special()
    }

    /// Whether this is the type of [`Identity`](crate::Identity).
    pub fn is_identity(&self) -> bool {
        self.special() == Some(SpecialType::Identity)
    }

    /// Whether this is the type of [`ConnectionId`](crate::ConnectionId).
    pub fn is_connection_id(&self) -> bool {
        self.special() == Some(SpecialType::ConnectionId)
    }

    /// Whether this is the type of [`Timestamp`](crate::Timestamp).
    pub fn is_timestamp(&self) -> bool {
        self.special() == Some(SpecialType::Timestamp)
    }

    /// Whether this is the type of [`TimeDuration`](crate::TimeDuration).
    pub fn is_time_duration(&self) -> bool {
        self.special() == Some(SpecialType::TimeDuration)
    }

    /// Whether this is the type of [`Uuid`](crate::Uuid).
    pub fn is_uuid(&self) -> bool {
        self.special() == Some(SpecialType::Uuid)
    }

    /// Whether this is the type of [`ScheduleAt`](crate::ScheduleAt).
    pub fn is_schedule_at(&self) -> bool {
        let Some([interval, time]) = self.as_sum().map(|sum| &*sum.variants) else {
            return false;
        };
        interval.name() == Some("Interval")
            && interval.ty.is_time_duration()
            && time.name() == Some("Time")
            && time.ty.is_timestamp()
    }

    /// The payload type, if this is an option.
    pub fn as_option(&self) -> Option<&AlgebraicType> {
        self.as_sum()?.as_option()
    }

    /// Whether this is an option.
    pub fn is_option(&self) -> bool {
        self.as_option().is_some()
    }

    /// The payload types `(ok, err)`, if this is a result.
    pub fn as_result(&self) -> Option<(&AlgebraicType, &AlgebraicType)> {
        let [ok, err] = &*self.as_sum()?.variants else {
            return None;
        };
        let is_result = ok.name() == Some("ok") && err.name() == Some("err");
        is_result.then_some((&ok.ty, &err.ty))
    }

    /// The type of [`Identity`](crate::Identity).
    pub fn identity() -> Self {
        Self::product([(IDENTITY_FIELD, Self::U256)])
    }

    /// The type of [`ConnectionId`](crate::ConnectionId).
    pub fn connection_id() -> Self {
        Self::product([(CONNECTION_ID_FIELD, Self::U128)])
    }

    /// The type of [`Timestamp`](crate::Timestamp).
    pub fn timestamp() -> Self {
        Self::product([(TIMESTAMP_FIELD, Self::I64)])
    }

    /// The type of [`TimeDuration`](crate::TimeDuration).
    pub fn time_duration() -> Self {
        Self::product([(TIME_DURATION_FIELD, Self::I64)])
    }

    /// The type of [`Uuid`](crate::Uuid).
    pub fn uuid() -> Self {
        Self::product([(UUID_FIELD, Self::U128)])
    }

    /// The type of [`ScheduleAt`](crate::ScheduleAt).
    pub fn schedule_at() -> Self {
        Self::sum([("Interval", Self::time_duration()), ("Time", Self::timestamp())])
    }

    /// An option of `some`: tag 0 is a value, tag 1 is none.
    pub fn option(some: AlgebraicType) -> Self {
        Self::sum([("some", some), ("none", Self::unit())])
    }

    /// A result: tag 0 is ok, tag 1 is an error.
    pub fn result(ok: AlgebraicType, err: AlgebraicType) -> Self {
        Self::sum([("ok", ok), ("err", err)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_types_are_told_apart_by_field_name_and_type() {
        let cases = [
            (AlgebraicType::identity(), Some(SpecialType::Identity), 32),
            (AlgebraicType::connection_id(), Some(SpecialType::ConnectionId), 16),
            (AlgebraicType::timestamp(), Some(SpecialType::Timestamp), 8),
            (AlgebraicType::time_duration(), Some(SpecialType::TimeDuration), 8),
            (AlgebraicType::uuid(), Some(SpecialType::Uuid), 16),
            (AlgebraicType::product([("__identity__", AlgebraicType::U128)]), None, 16),
            (AlgebraicType::product([("identity", AlgebraicType::U256)]), None, 32),
            (AlgebraicType::product([("__uuid__", AlgebraicType::U128), ("b", AlgebraicType::U8)]), None, 17),
            (AlgebraicType::U256, None, 32),
            (AlgebraicType::schedule_at(), None, 9),
        ];
        for (ty, special, size) in cases {
            assert_eq!(ty.special(), special, "{ty:?}");
            assert_eq!(ty.static_bsatn_size(), Some(size), "{ty:?}");
        }
    }

    #[test]
    fn sums_with_magic_names() {
        let option = AlgebraicType::option(AlgebraicType::U32);
        assert_eq!(option.as_option(), Some(&AlgebraicType::U32));
        assert!(option.as_result().is_none() && !option.is_schedule_at());
        assert_eq!(option.static_bsatn_size(), None);
        let swapped = AlgebraicType::sum([("none", AlgebraicType::unit()), ("some", AlgebraicType::U32)]);
        assert!(!swapped.is_option());
        let result = AlgebraicType::result(AlgebraicType::U32, AlgebraicType::String);
        assert_eq!(result.as_result(), Some((&AlgebraicType::U32, &AlgebraicType::String)));
        assert!(AlgebraicType::schedule_at().is_schedule_at());
        let pair = AlgebraicType::sum([("Interval", AlgebraicType::I64), ("Time", AlgebraicType::timestamp())]);
        assert!(!pair.is_schedule_at());
    }
}
