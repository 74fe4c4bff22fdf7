//! The market's rows and arguments in Rust: the columns of `examples/market/schema.ts` in order, as far
//! as the demo looks at them.

use bytes::Bytes;
use tine_types::{
    Identity,
    bsatn::{BsatnWrite, DecodeError, Reader},
};

/// A lot under the hammer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auction {
    pub id: u64,
    pub seller: Identity,
    pub good: u8,
    pub units: u32,
    pub reserve: u64,
    pub best: u64,
    pub second: u64,
    pub bidder: Option<Identity>,
    pub bids: u32,
    pub closes_micros: i64,
}

/// What is traded.
#[derive(Clone, Debug)]
pub struct Good {
    pub id: u8,
    pub minted: u64,
    pub sales: u64,
    pub units: u64,
    pub coins: u64,
}

/// The rules of the house.
#[derive(Clone, Debug)]
pub struct Policy {
    pub name: String,
    /// Basis points.
    pub fee: u32,
    /// Percent of the last price.
    pub floor: u32,
    /// Percent over the best bid.
    pub step: u32,
    pub second: bool,
}

/// The auction house.
#[derive(Clone, Debug)]
pub struct House {
    pub coins: u64,
    pub minted: u64,
}

/// A trader's account.
#[derive(Clone, Debug)]
pub struct Agent {
    pub coins: u64,
}

/// Crates of one good held by one agent.
#[derive(Clone, Debug)]
pub struct Holding {
    pub id: u64,
    pub good: u8,
    pub units: u32,
}

/// One accepted `sell` (no coins) or `bid`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerLine {
    pub agent: Identity,
    pub ticket: u64,
    pub auction: u64,
    pub coins: u64,
}

/// A row of the market that can be read from the wire.
pub trait Row: Sized {
    /// Decodes the columns.
    ///
    /// # Errors
    /// When the bytes are not a row of this table.
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

impl Row for Auction {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Auction {
            id: reader.u64()?,
            seller: reader.identity()?,
            good: reader.u8()?,
            units: reader.u32()?,
            reserve: reader.u64()?,
            best: reader.u64()?,
            second: reader.u64()?,
            bidder: if reader.option()? { Some(reader.identity()?) } else { None },
            bids: reader.u32()?,
            closes_micros: reader.i64()?,
        })
    }
}

impl Row for Good {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let id = reader.u8()?;
        reader.str()?;
        let minted = reader.u64()?;
        reader.u64()?;
        Ok(Good { id, minted, sales: reader.u64()?, units: reader.u64()?, coins: reader.u64()? })
    }
}

impl Row for Policy {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.u8()?;
        Ok(Policy {
            name: reader.str()?.to_owned(),
            fee: reader.u32()?,
            floor: reader.u32()?,
            step: reader.u32()?,
            second: reader.bool()?,
        })
    }
}

impl Row for House {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.u8()?;
        reader.identity()?;
        Ok(House { coins: reader.u64()?, minted: reader.u64()? })
    }
}

impl Row for Agent {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.identity()?;
        reader.str()?;
        Ok(Agent { coins: reader.u64()? })
    }
}

impl Row for Holding {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let id = reader.u64()?;
        reader.identity()?;
        Ok(Holding { id, good: reader.u8()?, units: reader.u32()? })
    }
}

impl Row for LedgerLine {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.u64()?;
        Ok(LedgerLine {
            agent: reader.identity()?,
            ticket: reader.u64()?,
            auction: reader.u64()?,
            coins: reader.u64()?,
        })
    }
}

/// Arguments of `join`.
pub fn join(name: &str) -> Bytes {
    let mut out = Vec::with_capacity(4 + name.len());
    out.put_str(name);
    out.into()
}

/// Arguments of `sell`.
pub fn sell(ticket: u64, good: u8, units: u32, reserve: u64, open_ms: u32) -> Bytes {
    let mut out = Vec::with_capacity(25);
    out.put_u64(ticket);
    out.put_u8(good);
    out.put_u32(units);
    out.put_u64(reserve);
    out.put_u32(open_ms);
    out.into()
}

/// Arguments of `bid`.
pub fn bid(ticket: u64, auction: u64, coins: u64) -> Bytes {
    let mut out = Vec::with_capacity(24);
    out.put_u64(ticket);
    out.put_u64(auction);
    out.put_u64(coins);
    out.into()
}
