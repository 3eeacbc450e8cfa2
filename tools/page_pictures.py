"""Takes the pictures of the page that the front page and the guide of serving show, nbs/guides/front.png and page.png, in a Chromium:
    python tools/page_pictures.py"""
import shutil,tempfile
from io import BytesIO
from pathlib import Path
from urllib.parse import urlencode
from PIL import Image
from playwright.sync_api import sync_playwright
from fastrec.all import RecDataLoaders,learner,sample_ratings
from fastrec.serve import Background,app

guides = Path(__file__).parents[1]/'nbs'/'guides'
chromium = shutil.which('chromium') or shutil.which('google-chrome') or shutil.which('chromium-browser')
rated = {'Orbital Station 2 (1952)': 5, 'Longing Kiss (2024)': 1, 'Midnight Shadow (1970)': 5, 'Moonlit Affair (2021)': 4, 'Forgotten Waltz 2 (1983)': 5}

def trained(folder):
    "The sample's recommender that `make demo` leaves, in `folder`"
    learn = learner(RecDataLoaders.from_df(sample_ratings(), seed=42), seed=42)
    with learn.no_bar(),learn.no_logging(): learn.fit_blend(ratings='fit_bayes')
    return learn.save_recommender(folder, ratings=True)

def write(png, name):
    "Write the bytes `png` as a picture of 256 colours"
    Image.open(BytesIO(png)).convert('RGB').quantize(256).save(guides/name, optimize=True)

def main():
    query = urlencode([('r', f'{stars}~{title}') for title,stars in rated.items()])
    with tempfile.TemporaryDirectory() as d, Background(app(trained(Path(d)/'films'))) as films, sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=['--no-sandbox'])
        page = browser.new_page(viewport=dict(width=1180, height=760))
        page.goto(f'{films.url}/#{query}')
        page.wait_for_selector('#map .spot')
        page.wait_for_load_state('networkidle')
        page.wait_for_timeout(500)  # rows glide to where they are
        write(page.screenshot(), 'front.png')
        write(page.screenshot(full_page=True), 'page.png')
        browser.close()

if __name__=='__main__': main()
