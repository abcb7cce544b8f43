# %% [markdown]
# # The read example
# %%
print(1)
