"""Money: exact, one currency at a time, never a float."""

from decimal import Decimal

import pytest
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Column, Integer, MetaData, Table, func, insert, select
from sqlalchemy.exc import StatementError

from chassis.currencies import EXPONENTS
from chassis.database import Database
from chassis.money import CurrencyMismatchError, ExactDecimal, Money
from chassis.settings import DatabaseSettings


def eur(amount: str) -> Money:
    return Money(amount=Decimal(amount), currency="EUR")


def test_json_has_the_amount_as_a_string_with_the_decimals_of_the_currency():
    """12.5 euros are "12.50"; yen have no decimals, dinars three."""
    assert eur("12.5").model_dump_json() == '{"amount":"12.50","currency":"EUR"}'
    assert Money(amount=Decimal(120), currency="JPY").model_dump()["amount"] == Decimal(120)
    assert Money(amount=Decimal("1E+2"), currency="JPY").model_dump_json() == (
        '{"amount":"100","currency":"JPY"}'
    )
    assert '"1.500"' in Money(amount=Decimal("1.5"), currency="BHD").model_dump_json()


@pytest.mark.parametrize(
    "amount",
    ["12.5", "0", "-3.10", "99999999999999.99"],
)
def test_strings_are_read_exactly(amount):
    """What JSON gives as a string is the same decimal."""
    money = Money.model_validate_json(f'{{"amount": "{amount}", "currency": "EUR"}}')
    assert money.amount == Decimal(amount)


@pytest.mark.parametrize(
    "amount",
    [
        "12.5",  # a JSON number
        "12",
        "true",
        "null",
        '"1e3"',
        '"NaN"',
        '"Infinity"',
        '"1,5"',
        '" 1"',
        '"+1"',
        '"1."',
        '".5"',
        '"01"',
        '"1_000"',
        '"\\u0661"',
        '"100000000000000"',
        '"1.999"',
        '"0.00001"',
        '""',
    ],
)
def test_anything_else_is_refused(amount):
    """Numbers, exponents, odd spellings, too many digits: no guess is made."""
    with pytest.raises(ValidationError):
        Money.model_validate_json(f'{{"amount": {amount}, "currency": "EUR"}}')


def test_python_floats_are_refused():
    with pytest.raises(ValidationError, match="not as a number"):
        Money(amount=0.1, currency="EUR")


@pytest.mark.parametrize("currency", ["eur", "XXX", "EURO", "", "BGN"])
def test_only_active_iso_currencies_are_known(currency):
    """Lower case, funds and withdrawn currencies are refused."""
    with pytest.raises(ValidationError):
        Money(amount=Decimal(1), currency=currency)


def test_yen_with_decimals_are_refused():
    with pytest.raises(ValidationError, match="JPY has 0 decimals"):
        Money(amount=Decimal("1.5"), currency="JPY")


def test_exponents_of_iso_4217():
    assert {EXPONENTS[code] for code in ("EUR", "USD", "XCG", "ZWG")} == {2}
    assert {EXPONENTS[code] for code in ("JPY", "KRW", "XOF")} == {0}
    assert {EXPONENTS[code] for code in ("BHD", "KWD", "TND")} == {3}
    assert len(EXPONENTS) > 150


def test_equal_amounts_are_equal_values():
    """12.5 and 12.50 are one value with one hash; minus zero is zero."""
    assert eur("12.5") == eur("12.50")
    assert hash(eur("12.5")) == hash(eur("12.50"))
    assert str(eur("-0")) == "0.00 EUR"


def test_arithmetic_is_exact():
    """0.10 + 0.20 is 0.30, and ten cents a million times are a hundred thousand."""
    assert eur("0.10") + eur("0.20") == eur("0.30")
    assert eur("0.10") * 1_000_000 == eur("100000")
    assert 3 * eur("0.10") - eur("0.30") == Money.zero("EUR")
    assert Money.total([eur("1.10"), eur("2.20")], "EUR") == eur("3.30")
    assert Money.total([], "EUR") == Money.zero("EUR")
    assert -eur("1") < eur("0") <= eur("0") < eur("1")
    assert eur("1") > eur("0") >= eur("0")
    assert not eur("0")
    assert eur("0.01")


def test_rates_are_rounded_to_the_currency():
    """Half to even, so that sums of many roundings do not drift."""
    assert eur("10.05").times(Decimal("0.5")) == eur("5.02")
    assert eur("10.15").times(Decimal("0.5")) == eur("5.08")


def test_a_float_or_another_money_is_no_factor():
    with pytest.raises(TypeError):
        eur("1") * 1.5
    with pytest.raises(TypeError):
        eur("1") * True


@pytest.mark.parametrize(
    "operation",
    [
        lambda a, b: a + b,
        lambda a, b: a - b,
        lambda a, b: a < b,
        lambda a, b: a >= b,
        lambda a, b: Money.total([b], a.currency),
    ],
)
def test_currencies_do_not_mix(operation):
    with pytest.raises(CurrencyMismatchError):
        operation(eur("1"), Money(amount=Decimal(1), currency="USD"))


def test_the_json_schema_says_what_is_accepted():
    schema = TypeAdapter(Money).json_schema()
    assert schema["properties"]["amount"]["type"] == "string"
    assert "EUR" in schema["properties"]["currency"]["enum"]


prices = Table(
    "prices",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("price", ExactDecimal),
)


@pytest.fixture
async def database(make_settings, database_url):
    database = Database(make_settings(DatabaseSettings, database_url=database_url))
    async with database.engine.begin() as connection:
        await connection.run_sync(prices.metadata.create_all)
    yield database
    await database.close()


async def test_storage_is_exact_sorts_and_sums(database):
    """Decimals come back digit for digit; order, comparison and sum are those of numbers."""
    values = [Decimal(text) for text in ("10.0000", "9.9999", "-1.5", "99999999999999.9999", "0.1")]
    async with database.session() as session:
        await session.execute(insert(prices), [{"price": value} for value in [*values, None]])
    async with database.reading() as session:
        ordered = await session.scalars(
            select(prices.c.price).where(prices.c.price.is_not(None)).order_by(prices.c.price)
        )
        assert ordered.all() == sorted(values)
        above = await session.scalars(select(prices.c.price).where(prices.c.price > Decimal("9.9")))
        assert set(above) == {value for value in values if value > Decimal("9.9")}
        assert await session.scalar(select(func.sum(prices.c.price))) == sum(values)


@pytest.mark.parametrize("value", [0.5, Decimal("0.00001"), Decimal(10) ** 14, Decimal("NaN")])
async def test_storage_refuses_what_it_would_change(database, value):
    """A float, a fifth decimal, too many digits: an error, not a rounded value."""
    with pytest.raises(StatementError):
        async with database.session() as session:
            await session.execute(insert(prices).values(price=value))
