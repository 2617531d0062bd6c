"""A web service that takes contracts: the document commits with the service's own row, or neither.

Shows an engine that is shared with the application, ``submit`` inside the application's own
transaction, a runner in the background of the web process, and a status in one sentence. It needs
the extra ``service`` and a PostgreSQL with pgvector:

    export DATABASE_URL=postgresql+psycopg://localhost/app
    statemachine-pipeline migrate
    uvicorn --app-dir examples service:app
    curl -F file=@contract.pdf 'localhost:8000/contracts?customer=alder'

Larger services run workers as processes of their own (``statemachine-pipeline worker``) and leave
the runner out of ``lifespan``.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from fastapi import FastAPI, HTTPException, UploadFile
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from statemachine_pipeline import Pipeline
from statemachine_pipeline.errors import DocumentNotFound

engine = create_async_engine(os.environ["DATABASE_URL"])
sessions = async_sessionmaker(engine)
pipeline = Pipeline(engine)


class Base(DeclarativeBase):
    """Tables of the service itself."""


class Contract(Base):
    """Which customer a document belongs to."""

    __tablename__ = "contract"

    document_id: Mapped[UUID] = mapped_column(primary_key=True)
    customer: Mapped[str]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Run a worker for as long as the service runs; it drains when the service stops."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with pipeline, pipeline.runner():
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/contracts", status_code=202)
async def upload(file: UploadFile, customer: str) -> dict[str, str]:
    """Take a contract; the same bytes again say ``unchanged``."""
    async with sessions.begin() as session:
        sent = await pipeline.submit(
            await file.read(), name=file.filename, tenant=customer, session=session
        )
        await session.merge(Contract(document_id=sent.document_id, customer=customer))
    return {"id": str(sent.document_id), "outcome": sent.outcome}


@app.get("/contracts/{document_id}")
async def status(document_id: UUID) -> str:
    """Say where a contract stands, why, and what comes next."""
    try:
        return (await pipeline.explain(document_id)).sentence
    except DocumentNotFound as error:
        raise HTTPException(404, str(error)) from error
