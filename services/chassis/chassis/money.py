"""Money: exact decimals with an ISO 4217 currency, never floats."""

import re
from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    model_validator,
)
from pydantic.json_schema import WithJsonSchema
from sqlalchemy import BigInteger, Dialect, Numeric
from sqlalchemy.types import TypeDecorator, TypeEngine

from chassis.currencies import EXPONENTS

PRECISION = 18
SCALE = 4
_UNIT = Decimal(1).scaleb(-SCALE)
_LIMIT = Decimal(10) ** (PRECISION - SCALE)
_AMOUNT = re.compile(r"-?(0|[1-9][0-9]{0,13})(\.[0-9]{1,4})?")


class CurrencyMismatchError(ValueError):
    """Amounts of different currencies cannot be added or compared."""


def _exact(value: Any) -> Any:
    """Accept decimals as text; a JSON number has been a float somewhere."""
    if isinstance(value, str):
        if not _AMOUNT.fullmatch(value):
            raise ValueError('give the amount as a decimal string such as "12.50"')
        return Decimal(value)
    if isinstance(value, Decimal):
        return value
    raise ValueError('give the amount as a string such as "12.50", not as a number')


Amount = Annotated[
    Decimal,
    BeforeValidator(_exact),
    PlainSerializer(lambda value: f"{value:f}", return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": f"^{_AMOUNT.pattern}$", "examples": ["12.50"]}),
]


def _known(code: str) -> str:
    if code not in EXPONENTS:
        raise ValueError("not a currency of ISO 4217")
    return code


Currency = Annotated[
    str,
    AfterValidator(_known),
    WithJsonSchema(
        {
            "type": "string",
            "enum": sorted(EXPONENTS),
            "description": "ISO 4217 code.",
            "examples": ["EUR"],
        }
    ),
]


class Money(BaseModel):
    """An amount in a currency: `{"amount": "12.50", "currency": "EUR"}`.

    The amount has as many decimals as the currency (ISO 4217): EUR 2, JPY 0, BHD 3. Arithmetic
    is exact; sums and comparisons of different currencies raise `CurrencyMismatchError`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    amount: Amount
    currency: Currency

    @model_validator(mode="after")
    def _fit(self) -> Self:
        exponent = EXPONENTS[self.currency]
        amount = self.amount
        if not amount.is_finite() or abs(amount) >= _LIMIT:
            raise ValueError(f"the amount must be below {_LIMIT:f}")
        fitted = amount.quantize(Decimal(1).scaleb(-exponent))
        if fitted != amount:
            raise ValueError(f"{self.currency} has {exponent} decimals")
        # Frozen for callers; "12.5" and "12.50" must be one value and one text. No minus zero.
        object.__setattr__(self, "amount", fitted or abs(fitted))
        return self

    @classmethod
    def zero(cls, currency: str) -> Self:
        """Return nothing, in a currency."""
        return cls(amount=Decimal(0), currency=currency)

    @classmethod
    def total(cls, amounts: Iterable["Money"], currency: str) -> "Money":
        """Return the sum of `amounts`, all in `currency`."""
        total = Money.zero(currency)
        for each in amounts:
            total += each
        return total

    def _same(self, other: "Money") -> None:
        if self.currency != other.currency:
            raise CurrencyMismatchError(f"{self.currency} and {other.currency} do not mix")

    def __add__(self, other: "Money") -> "Money":
        self._same(other)
        return Money(amount=self.amount + other.amount, currency=self.currency)

    def __sub__(self, other: "Money") -> "Money":
        self._same(other)
        return Money(amount=self.amount - other.amount, currency=self.currency)

    def __neg__(self) -> "Money":
        return Money(amount=-self.amount, currency=self.currency)

    def __mul__(self, quantity: int) -> "Money":
        if isinstance(quantity, bool) or not isinstance(quantity, int):
            return NotImplemented
        return Money(amount=self.amount * quantity, currency=self.currency)

    __rmul__ = __mul__

    def times(self, factor: Decimal, rounding: str = ROUND_HALF_EVEN) -> "Money":
        """Return the amount times `factor` (a tax rate, say), rounded to the currency."""
        unit = Decimal(1).scaleb(-EXPONENTS[self.currency])
        amount = (self.amount * factor).quantize(unit, rounding=rounding)
        return Money(amount=amount, currency=self.currency)

    def __lt__(self, other: "Money") -> bool:
        self._same(other)
        return self.amount < other.amount

    def __le__(self, other: "Money") -> bool:
        self._same(other)
        return self.amount <= other.amount

    def __gt__(self, other: "Money") -> bool:
        return other < self

    def __ge__(self, other: "Money") -> bool:
        return other <= self

    def __bool__(self) -> bool:
        return bool(self.amount)

    def __str__(self) -> str:
        return f"{self.amount:f} {self.currency}"


class ExactDecimal(TypeDecorator[Decimal]):
    """A decimal of up to 18 digits, 4 of them behind the point; exact on both databases.

    `NUMERIC(18, 4)` on PostgreSQL. SQLite has no decimal type, so it stores the ten-thousandths
    as an integer: exact, and unlike text it sorts, compares and sums correctly.

    Raises:
        ValueError: (as the cause of a `StatementError`) for a value with more digits.
    """

    impl = Numeric(PRECISION, SCALE)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the type of the column by database."""
        if dialect.name == "sqlite":
            return dialect.type_descriptor(BigInteger())
        return dialect.type_descriptor(Numeric(PRECISION, SCALE))

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        """Check that nothing is lost, then convert."""
        if value is None:
            return None
        if isinstance(value, float):
            raise ValueError("a float is not exact; pass a Decimal")  # noqa: TRY004
        decimal = Decimal(value)
        if not decimal.is_finite() or abs(decimal) >= _LIMIT:
            raise ValueError(f"{decimal} does not fit {PRECISION} digits")
        stored = decimal.quantize(_UNIT)
        if stored != decimal:
            raise ValueError(f"{decimal} has more than {SCALE} decimals")
        return int(stored.scaleb(SCALE)) if dialect.name == "sqlite" else stored

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Decimal | None:
        """Return the decimal with 4 places."""
        if value is None:
            return None
        return Decimal(value).scaleb(-SCALE) if dialect.name == "sqlite" else Decimal(value)
