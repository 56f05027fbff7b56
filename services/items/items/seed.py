"""A small catalogue, for a first look at a running system."""

from datetime import datetime
from decimal import Decimal

from sqlalchemy.ext.asyncio import AsyncSession

from chassis.money import Money
from items import store
from items.domain import Content, Status
from items.store import ItemExistsError, SkuTakenError


def _content(
    *, sku: str, name: str, category: str, tags: str, euros: str, dollars: str, description: str
) -> Content:
    return Content(
        sku=sku,
        name=name,
        description=description,
        category=category,
        tags=tuple(sorted(tags.split())),
        status=Status.AVAILABLE,
        prices=(
            Money(amount=Decimal(euros), currency="EUR"),
            Money(amount=Decimal(dollars), currency="USD"),
        ),
    )


def catalogue() -> dict[str, Content]:
    """Return the example items by id. The stock of each is in the seed of inventory."""
    return {
        "walnut-desk": _content(
            sku="DSK-WAL-140",
            name="Walnut desk",
            category="furniture",
            tags="office wood",
            euros="549.00",
            dollars="595.00",
            description="A desk of solid walnut, 140 by 70 cm, oiled, with a drawer.",
        ),
        "oak-bookshelf": _content(
            sku="SHF-OAK-5",
            name="Oak bookshelf",
            category="furniture",
            tags="living wood",
            euros="329.00",
            dollars="359.00",
            description="Five shelves of solid oak, 180 cm high.",
        ),
        "linen-armchair": _content(
            sku="CHR-LIN-1",
            name="Linen armchair",
            category="furniture",
            tags="living textile",
            euros="419.50",
            dollars="459.00",
            description="A low armchair with a washable cover of grey linen.",
        ),
        "brass-desk-lamp": _content(
            sku="LMP-BRS-1",
            name="Brass desk lamp",
            category="lighting",
            tags="metal office",
            euros="89.90",
            dollars="97.50",
            description="A lamp with a jointed arm of brass; takes an E14 bulb.",
        ),
        "paper-floor-lamp": _content(
            sku="LMP-PAP-2",
            name="Paper floor lamp",
            category="lighting",
            tags="living paper",
            euros="64.00",
            dollars="69.90",
            description="A floor lamp of folded paper, 150 cm high; takes an E27 bulb.",
        ),
        "wool-throw": _content(
            sku="TXT-WOL-1",
            name="Wool throw",
            category="textiles",
            tags="living textile",
            euros="79.00",
            dollars="85.00",
            description="A throw of lambswool, 130 by 180 cm.",
        ),
        "stoneware-mug": _content(
            sku="KIT-MUG-3",
            name="Stoneware mug",
            category="kitchen",
            tags="ceramic",
            euros="18.50",
            dollars="19.90",
            description="A mug of glazed stoneware for 300 ml.",
        ),
        "enamel-teapot": _content(
            sku="KIT-TEA-1",
            name="Enamel teapot",
            category="kitchen",
            tags="metal",
            euros="34.90",
            dollars="37.90",
            description="A teapot of enamelled steel for one litre, with a strainer.",
        ),
        "cast-iron-pan": _content(
            sku="KIT-PAN-26",
            name="Cast-iron pan",
            category="kitchen",
            tags="metal",
            euros="59.00",
            dollars="64.00",
            description="A pan of seasoned cast iron, 26 cm, for every kind of stove.",
        ),
        "chef-knife": _content(
            sku="KIT-KNF-20",
            name="Chef's knife",
            category="kitchen",
            tags="metal wood",
            euros="112.00",
            dollars="119.00",
            description="A forged blade of 20 cm with a handle of walnut.",
        ),
        "cork-notebook": _content(
            sku="OFF-NTB-A5",
            name="Cork notebook",
            category="stationery",
            tags="office paper",
            euros="12.90",
            dollars="13.90",
            description="A5, 160 dotted pages, bound in cork.",
        ),
        "wall-clock": _content(
            sku="DEC-CLK-30",
            name="Wall clock",
            category="decoration",
            tags="living metal",
            euros="45.00",
            dollars="49.00",
            description="A silent wall clock, 30 cm.",
        ),
    }


async def seed(session: AsyncSession, now: datetime) -> int:
    """Add every example item whose id and SKU are free; others stay as they are.

    Returns:
        How many items were added.
    """
    added = 0
    for item_id, content in catalogue().items():
        try:
            await store.create(session, item_id, content, now)
        except (ItemExistsError, SkuTakenError):
            continue
        added += 1
    return added
