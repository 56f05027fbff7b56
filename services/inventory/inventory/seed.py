"""Stock for the example catalogue, for a first look at a running system."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from inventory import stock
from inventory.stock import Cause

# The ids are those of the items service's seed; a test compares them. One is sold out on purpose.
LEVELS = {
    "walnut-desk": 12,
    "oak-bookshelf": 8,
    "linen-armchair": 5,
    "brass-desk-lamp": 40,
    "paper-floor-lamp": 15,
    "wool-throw": 60,
    "stoneware-mug": 200,
    "enamel-teapot": 25,
    "cast-iron-pan": 30,
    "chef-knife": 18,
    "cork-notebook": 150,
    "wall-clock": 0,
}


async def seed(session: AsyncSession, now: datetime) -> int:
    """Stock every example item that has no stock yet; others stay as they are.

    Returns:
        How many items were stocked.
    """
    added = 0
    for item_id, on_hand in sorted(LEVELS.items()):
        if await stock.get(session, item_id) is None:
            await stock.set_level(session, item_id, on_hand, Cause(now))
            added += 1
    return added
